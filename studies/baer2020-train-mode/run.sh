#!/bin/sh
# The ablation of studies/baer2020-camvid: down 2, seed 0, finetuned with batch statistics and dropout. DATA is the folder with camvid and video.
set -eu
cd "$(dirname "$0")/../.."
data="${DATA:-data}" network=runs/adaptive-trainmode/adaptive.safetensors
robustseg train-adaptive --teacher zoo:erfnet-camvid --student zoo:erfnet-half-camvid \
    --data "joined(camvid(root='$data/camvid', split='val'), frames('$data/video/kitti_test984.mp4', every=8), frames('$data/video/udacity_solidWhiteRight.mp4', every=16))" \
    --layers down2 --alpha 0.6 --updates 400 --scale 0.45 1.0 --seed 0 --train-mode --precision bf16-mixed --device cpu --check-every 200 --out runs/adaptive-trainmode
for eps in 1 10; do
    for source in zoo:erfnet-camvid zoo:erfnet-half-camvid; do
        robustseg evaluate --network "$network" --source "$source" --data "camvid(root='$data/camvid', split='test', subset='cpu')" --size 180x240 \
            --perturbation "baer2020_llcm(budget='linf:$eps/255')" --batch-size 4 --seed 0 --device cpu --panels 0 --out studies/baer2020-train-mode
    done
done
