"""TRL's half of `trl_comparison.py`: GRPOTrainer, one update for every line that arrives on standard input.

Runs with a PYTHONPATH that begins with the folder that holds TRL.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from support.one_call import ALPHA, LEARNING_RATE, NEW_TOKENS, PROMPTS, RANK, SAMPLES, likeness
from support.turns import Clock


def main(job_path: str) -> None:
    import torch
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    job = json.loads(Path(job_path).read_text())
    torch.set_num_threads(job["threads"])
    clock = Clock()

    def paid(prompts: list[str], completions: list[str], target: list[str], **rest: Any) -> list[float]:
        found = [likeness(text, word) for text, word in zip(completions, target, strict=True)]
        clock.sampled(sum(len(ids) for ids in rest["completion_ids"]))
        return found

    class Turns(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if not clock.begin():
                raise SystemExit("the comparison is over")

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            clock.end()

    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])),
            processing_class=AutoTokenizer.from_pretrained(job["model"]),
            reward_funcs=paid,
            args=GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=job["dtype"] == "bfloat16",
                # On by default; it would cost TRL a second forward pass that this model does not need.
                gradient_checkpointing=False,
                per_device_train_batch_size=PROMPTS * SAMPLES,
                num_generations=SAMPLES,
                max_completion_length=NEW_TOKENS,
                max_steps=job["updates"],
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                temperature=1.0,
                beta=0.0,
                shuffle_dataset=False,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=10**6,
            ),
            # With a fingerprint given: to compute one, dill pickles pyarrow, and fails where it lies outside of the
            # interpreter's own folders.
            train_dataset=Dataset(InMemoryTable.from_pylist(job["rows"]), fingerprint="rows"),
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[Turns()],
        )
        clock.ready()
        trainer.train()


if __name__ == "__main__":
    main(sys.argv[1])
