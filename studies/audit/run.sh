#!/bin/sh
# Three undefended networks at three eps: no finding may hint at masked gradients. That ten steps are too few, it finds (more_steps), so it
# ends with exit code 1. CAMVID is the folder in SegNet layout.
set -eu
cd "$(dirname "$0")/../.."
measure() {
    for n in 1 2 4; do printf '%s\n' "--perturbation" "cospgd(budget='linf:$n/255', steps=10)"; done | tr '\n' '\0' |
        xargs -0 robustseg evaluate --batch-size 2 --seed 0 --device cpu --panels 0 --out studies/audit "$@"
}
measure --network zoo:erfnet-streets --data "streets(scenes=2, frames=1, size='128x256', split='test')"
measure --network zoo:erfnet-camvid --network zoo:deeplabv3plus-camvid \
    --data "camvid(root='${CAMVID:-data/camvid}', split='test')" --images 2 --size 180x240
robustseg audit studies/audit --images 2 --device cpu
