#!/bin/sh
# What stands behind claims that do not hold, on the study's networks (trained by run.sh before), images and size.
# fixed-target (A1, A3): the iterative attack of the authors' code aims at the class that is least likely now, anew at each step; baer2020_llcm at the
# class that was least likely on the clean image. more-steps (A6): PGD through two input transformations with 50 steps in place of 10.
set -eu
cd "$(dirname "$0")/../.."
out="${OUT:-runs/arnab2018-camvid}"
measure() {
    robustseg evaluate --network "$2" --perturbation "$3" --data "camvid(root='${DATA:-data}/camvid', split='test', subset='cpu')" --images 20 \
        --size 180x240 --batch-size 4 --device cpu --out "studies/arnab2018-camvid/$1"
}
weights() { echo "weights('$out/networks/$1/best.safetensors')"; }
for name in erfnet fcn8s deeplabv2 segnet; do
    measure fixed-target "$(weights $name)" "baer2020_llcm(budget='linf:8/255')"
done
for network in "$(weights erfnet)" "jpeg($(weights erfnet))" "median($(weights erfnet))"; do
    measure more-steps "$network" "pgd(budget='linf:4/255', steps=50)"
done
