"""`torchrun --nproc-per-node 2 -m robustseg … train` (or a SLURM job) starts the command twice and sets WORLD_SIZE, while
--devices is left at 1. Right: refused in a sentence, or the two join as one training (one of them reports the best); never
two trainings that write into one folder. Kind of report: mosaicml/composer#56."""

import os
import socket
import subprocess

import kit


def check() -> str | None:
    kit.pairs("abcd", kit.halves(32, 32))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (
        *kit.command(), "train", "--network", kit.tiny(), "--data", kit.folder(), "--holdout", kit.folder(), "--crop", "32x32",
        "--scale", "1", "1", "--batch-size", "4", "--epochs", "1", "--check-every", "1", "--device", "cpu", "--out", "run",
    )  # fmt: skip
    both = []
    for rank in "01":
        place = {
            "WORLD_SIZE": "2",
            "RANK": rank,
            "LOCAL_RANK": rank,
            "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        place |= {"TORCHELASTIC_RUN_ID": "case", "GLOO_SOCKET_IFNAME": "lo"}
        both.append(
            subprocess.Popen(words, env={**os.environ, **place}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    told = []
    for one in both:
        try:
            out, err = one.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            one.kill()
            out, err = one.communicate()
            told.append(kit.Ran(-1, out.decode(errors="replace"), err.decode(errors="replace") + "\nno end after 60 s"))
            continue
        told.append(kit.Ran(one.returncode, out.decode(errors="replace"), err.decode(errors="replace")))
    if (
        any(ran.code == 0 and "Traceback" not in ran.text for ran in told)
        and sum("best:" in ran.out for ran in told) == 1
        and all(ran.code == 0 for ran in told)
    ):
        return None
    if all(ran.refused for ran in told):
        return None
    return f"rank 0: {told[0].told()}; rank 1: {told[1].told()}; {sum('best:' in ran.out for ran in told)} of 2 report the best of one folder"


if __name__ == "__main__":
    kit.run(check, "both refused in a sentence, or one joined training")
