#!/bin/sh
# SEA on CamVid: 40 test frames at 240x180, At 8/255 the ensemble, 3 x 30 steps; at 0.5/255, where an undefended network still labels
# something right, its three members one by one, 100 steps each, so that the worst mIoU over the set can be chosen among their records.
# CAMVID is the folder in SegNet layout. Appends; go on by running again.
set -eu
cd "$(dirname "$0")/../.."
pixels="10682767,14750079,623349,20076880,2845085,6166762,743859,714595,3719877,405385,184967" # of the training set: robustseg doctor --all
member() { echo "apgd(budget='linf:0.5/255', steps=100, objective='$1', shrink=True)"; }
robustseg evaluate --network "${NETWORK:-zoo:erfnet-camvid}" \
    --data "camvid(root='${CAMVID:-data/camvid}', split='test', subset='cpu')" --size 180x240 \
    --perturbation "$(member jensen_shannon)" \
    --perturbation "$(member masked_cross_entropy)" \
    --perturbation "$(member "balanced_masked_cross_entropy:$pixels")" \
    --perturbation "sea(budget='linf:8/255', steps=30, class_pixels=($pixels))" \
    --batch-size 4 --seed 0 --device cpu --precision bfloat16 --out studies/camvid-sea "$@"
