"""Weights as training tools write them: a compiled network ('_orig_mod.'), a Lightning checkpoint ('state_dict' with
'model.' before each name), a dictionary with 'model_state'. Right: they load into the named architecture, or the refusal
says which prefix or key is in the way. Reports: huggingface/pytorch-image-models#2003,
qubvel-org/segmentation_models.pytorch#979, MIC-DKFZ/nnUNet#2681, nerfstudio-project/nerfstudio#3702."""

import re

import kit


def check() -> str | None:
    import nets
    import torch

    state = nets.build().state_dict()
    kit.pairs()
    forms = {
        "_orig_mod.": ({f"_orig_mod.{k}": v for k, v in state.items()}, "_orig_mod"),
        "module._orig_mod.": ({f"module._orig_mod.{k}": v for k, v in state.items()}, "_orig_mod"),
        "Lightning": (
            {
                "state_dict": {f"model.{k}": v for k, v in state.items()},
                "epoch": 3,
                "global_step": 9,
                "hyper_parameters": {"lr": 1e-3},
            },
            "'model.",
        ),
        "model_state": ({"model_state": state, "best_score": 0.7}, "'model_state'"),
    }
    wrong = []
    for name, (content, told) in forms.items():
        torch.save(content, "w.pth")
        seen = kit.attempt(lambda: kit.evaluate(kit.tiny(more=", weights='w.pth'"), kit.folder()))
        if seen.error is None and kit.miou(seen.value) > 0.999:
            continue
        if seen.refused and told in str(seen.error) and re.search("prefix|key", str(seen.error)):
            continue
        wrong.append(f"{name}: {seen.told()[:150]}")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "loaded, or a refusal that names the prefix or key and how to take it off")
