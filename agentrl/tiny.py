"""Small models made on the spot: a random Llama of a few layers and a tokenizer whose tokens are words.

The tokenizer is the other half of the renderer `word`: its control tokens are never made from text, and what it
splits off a word (punctuation at its end, quotes and brackets around it) can be put back.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError, MissingDependencyError, StoreError

PAD, UNKNOWN = "<pad>", "<unk>"
SYSTEM, OBSERVATION, ACT, END = "<sys>", "<obs>", "<act>", "<end>"
CONTROL_TOKENS = (SYSTEM, OBSERVATION, ACT, END)
_ALWAYS = ("say", "_", '"')
"Words of the plain call form, in every vocabulary."

# Isolated: openers at the start of a word, closers at its end (so 3.5, don't and red-key stay whole), and the `<` of
# anything that looks like a control token (so text never becomes one).
_SPLIT = r"""(?<![^"(\[])["(\[]|[")\].,!?;:](?=[")\].,!?;:]*$)|<(?=[a-z]+>)"""
_HEAD_SIZES = (32, 64)


def make_tiny(
    folder: Path | str,
    texts: Iterable[str],
    *,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    context: int = 1024,
    seed: int = 0,
) -> Path:
    """Builds and saves a random model that `from_pretrained` and vLLM load; returns its folder.

    The vocabulary is every word in `texts`. Embeddings are tied (the model copies words from what it sees). Equal
    arguments give equal weights. Raises `ConfigError` for a shape that an engine cannot run, `StoreError` where the
    folder holds something.
    """
    folder = Path(folder)
    head_size = hidden // heads
    if hidden % heads or head_size not in _HEAD_SIZES:
        raise ConfigError(
            f"hidden {hidden} over {heads} heads gives heads of {hidden / heads:g}; vLLM on CPU runs heads of "
            f"{' or '.join(map(str, _HEAD_SIZES))}. Try hidden=128 heads=4."
        )
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty; a new model goes into a new folder. Name another or delete it.")
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as problem:
        raise MissingDependencyError(f"{problem}; a model needs pip install 'agentrl-framework[train]'") from None

    tokenizer = word_tokenizer(texts, context)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=32 * round(hidden * 8 / 3 / 32),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        head_dim=head_size,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    _save_aside(folder, model, tokenizer)
    return folder


def word_tokenizer(texts: Iterable[str], context: int) -> Any:
    """A `PreTrainedTokenizerFast`; ids are stable for equal sets of words."""
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast
    except ImportError as problem:
        raise MissingDependencyError(f"{problem}; a tokenizer needs pip install 'agentrl-framework[train]'") from None

    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(_SPLIT), "isolated")]
    )
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    control = [PAD, UNKNOWN, *CONTROL_TOKENS]
    vocabulary = {word: place for place, word in enumerate([*control, *sorted(words.union(_ALWAYS) - set(control))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = splitter
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the progress bars of transformers, which would tear the live panel."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _save_aside(folder: Path, model: Any, tokenizer: Any) -> None:
    import transformers

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            with quiet(transformers):
                model.save_pretrained(aside)
                tokenizer.save_pretrained(aside)
            aside.chmod(0o755)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as problem:
        raise StoreError(f"the model could not be saved to {folder}: {problem}") from problem
