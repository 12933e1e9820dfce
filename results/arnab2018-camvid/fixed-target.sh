#!/bin/sh
# What stands behind A3: the iterative attack of the authors' code aims at the class that is least likely now, anew at each step; this one at the class
# that was least likely on the clean image. Same networks, images and steps as the study, whose networks must have been trained.
set -eu
cd "$(dirname "$0")/../.."
out="${OUT:-runs/arnab2018-camvid}"
for name in erfnet fcn8s deeplabv2 segnet; do
    robustseg evaluate --network "weights('$out/networks/$name/best.safetensors')" --perturbation "baer2020_llcm(budget='linf:8/255')" \
        --data "camvid(root='${DATA:-data}/camvid', split='test', subset='cpu')" --images 20 \
        --size 180x240 --batch-size 4 --device cpu --out results/arnab2018-camvid/fixed-target
done
