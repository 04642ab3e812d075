"""The weights of a policy under their `transformers` names, with or without adapters.

Rule: reading weights never writes the module that is being trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agentrl.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from agentrl.training.settings import LearnerSettings, LoraSettings

ADAPTER = "default"


def trainable(model: Any, settings: LearnerSettings) -> Any:
    """`model` ready to be trained as `settings` say, in place. Raises `ConfigError` as `require_float32` does."""
    if settings.lora:
        model = add_adapters(model, settings.lora)
    else:
        require_float32(model)
    # Checkpointing works in training mode only; otherwise nothing may differ from how the engine computes.
    model.train(settings.gradient_checkpointing)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def add_adapters(model: Any, lora: LoraSettings) -> Any:
    """`model` with float32 LoRA layers put in (in place) and everything else frozen; returns the peft wrapper."""
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError("LoRA needs peft; install it with `pip install peft`.") from error
    from agentrl.training.lora import FusedLora

    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    config._register_custom_module({torch.nn.Linear: FusedLora})
    with torch.random.fork_rng():
        torch.manual_seed(lora.seed)
        return peft.get_peft_model(model, config, adapter_name=ADAPTER)


def require_float32(model: Any) -> None:
    """Raises `ConfigError` where a weight to be trained is not float32: small updates would round to nothing."""
    low = sorted({str(p.dtype) for p in model.parameters() if p.requires_grad and p.dtype != torch.float32})
    if low:
        raise ConfigError(
            f"the model has {', '.join(low)} weights and full fine-tuning keeps float32 ones, or small updates round "
            'to nothing. Load it in float32 and set compute = "bfloat16" for speed, or train LoRA adapters.'
        )


def merged(model: Any) -> dict[str, Tensor]:
    """Every tensor that `from_pretrained` reads: adapted weights as merged copies, the others as they are.

    An output head that is tied to the embedding is left out, as in every published checkpoint.
    """
    base = base_model(model)
    adapted = {name: module for name, module in base.named_modules() if hasattr(module, "get_delta_weight")}
    tied = tied_head(base)
    found: dict[str, Tensor] = {}
    for name, tensor in base.state_dict().items():
        owner = name.removesuffix(".weight").removesuffix(".base_layer")
        if ".lora_" in name or name == tied:
            continue
        if owner in adapted and name.endswith(".base_layer.weight"):
            with torch.no_grad():
                delta = adapted[owner].get_delta_weight(ADAPTER).to(torch.float32)
                tensor = (tensor.to(torch.float32) + delta).to(tensor.dtype)
        found[name.replace(".base_layer.", ".")] = tensor.detach()
    return found


def base_model(model: Any) -> Any:
    """The transformers model, out of its peft wrapper if it has one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def adapters(model: Any) -> dict[str, Tensor]:
    """The live adapter tensors under the names of peft's own files."""
    import peft

    return {name: tensor.detach() for name, tensor in peft.get_peft_model_state_dict(model).items()}


def tied_head(base: Any) -> str | None:
    """Name of the output head's weight where it is the embedding itself."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    if getattr(head, "weight", None) is not getattr(embedding, "weight", object()):
        return None
    return next(f"{name}.weight" for name, module in base.named_modules() if module is head)
