#!/bin/sh
# Teacher, student and adaptive students of Baer et al. 2020 on CamVid: 40 test frames at 240x180, attacked once for T and once for S.
# T: ERFNet; S: ERFNet of half the width; A: finetuned from S in 400 updates, by the layers whose features move away, three seeds each
# ("none" is the control: alpha = 0). CAMVID and VIDEO are the folders of the data. Goes on by running again.
set -eu
cd "$(dirname "$0")/../.."
camvid="${CAMVID:-data/camvid}" video="${VIDEO:-data/video}"
networks="--network zoo:erfnet-camvid --network zoo:erfnet-half-camvid"
for seed in 0 1 2; do
    for row in "down2 down2 0.6" "none all 0" "all all 0.6"; do
        set -- $row
        [ -f "runs/adaptive-$1-$seed/adaptive.safetensors" ] || robustseg train-adaptive --teacher zoo:erfnet-camvid --student zoo:erfnet-half-camvid \
            --data "joined(camvid(root='$camvid', split='val'), frames('$video/kitti_test984.mp4', every=8), frames('$video/udacity_solidWhiteRight.mp4', every=16))" \
            --holdout "camvid(root='$camvid', split='holdout')" --size 180x240 \
            --layers "$2" --alpha "$3" --updates 400 --crop 180x240 --scale 0.45 1.0 --batch-size 8 --learning-rate 1e-4 --seed "$seed" \
            --precision bf16-mixed --device cpu --check-every 200 --out "runs/adaptive-$1-$seed"
        networks="$networks --network runs/adaptive-$1-$seed/adaptive.safetensors"
    done
done
for source in zoo:erfnet-camvid zoo:erfnet-half-camvid; do
    robustseg evaluate $networks --source "$source" --data "camvid(root='$camvid', split='test', subset='cpu')" --size 180x240 \
        --perturbation "baer2020_llcm(budget='linf:1/255')" --perturbation "baer2020_llcm(budget='linf:10/255')" \
        --batch-size 4 --seed 0 --device cpu --panels 0 --out results/baer2020-camvid
done
