"""A .safetensors file from somebody else whose metadata names the architecture: itself, a thousand brackets, a network of
terabytes, or one of the Hugging Face hub. Right: refused in one sentence; no recursion error, no allocation, no connection.
Kind of report: qubvel-org/segmentation_models.pytorch#979 (files that build networks)."""

import json
import os
import resource
import socket
import time
from pathlib import Path

import kit

CALLS: list[str] = []


def check() -> str | None:
    import torch

    import robustseg as rs
    from robustseg.networks.weights import save

    torch.manual_seed(0)
    save(rs.network("erfnet(classes=3, width=0.25)"), "good.safetensors")
    raw = Path("good.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]

    def blocked(*words: object, **_: object) -> None:
        CALLS.append(str(words[:2]))
        raise OSError("this check allows no connection")

    socket.getaddrinfo = blocked
    socket.socket.connect = lambda self, address: blocked(address)
    os.environ.pop("HF_HUB_OFFLINE", None)
    time.sleep = lambda seconds: None  # nobody waits between tries here
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * 4096 if Path("/proc/self/statm").is_file() else 8 << 30
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), resource.RLIM_INFINITY))
    wrong = []
    for name, architecture in (
        ("names itself", "weights('evil.safetensors')"), ("names itself, bare", "evil.safetensors"), ("brackets", "erfnet(" * 1500 + ")" * 1500),
        ("minus signs", "erfnet(width=" + "-" * 50000 + "1)"), ("terabytes", "erfnet(classes=3, width=100000000)"), ("hub", "transformers('nobody-here/nothing')"),
    ):  # fmt: skip
        head = json.loads(json.dumps(header))
        head["__metadata__"]["architecture"] = architecture
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        Path("evil.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
        CALLS.clear()
        began = time.monotonic()
        seen = kit.attempt(lambda: rs.network("evil.safetensors"))
        if CALLS:
            wrong.append(f"{name}: a connection is tried ({CALLS[0]})")
        elif time.monotonic() - began > 10:
            wrong.append(f"{name}: {time.monotonic() - began:.0f} s")
        elif not seen.refused:
            wrong.append(f"{name}: {seen.told()[:120]}")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "a refusal in words for each")
