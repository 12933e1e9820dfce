#!/bin/sh
# An attack hidden in a KITTI town clip from three start frames; the adaptive network is that of studies/baer2020-camvid. DATA is the folder with video.
set -eu
cd "$(dirname "$0")/../.."
for start in 150 185 220; do
    robustseg monitor --triplet "triplet(zoo:erfnet-camvid, zoo:erfnet-half-camvid, weights('runs/baer2020-camvid/networks/down2-0/adaptive.safetensors'))" \
        --input "${DATA:-data}/video/kitti_test984.mp4" --size 180x600 --quiet 50 --attack "llcm(budget='linf:10/255')" --target T \
        --from "$start" --to $((start + 20)) --device cpu --out "runs/kitti-$start"
done
