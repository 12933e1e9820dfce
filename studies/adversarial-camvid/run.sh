#!/bin/sh
# Adversarial training side by side, on 40 CamVid test frames at 240x180: SEA (3 x 30 steps at three sizes, 3 x 100 at 4/255), the attack of the training,
# one step, and the four noises. CAMVID is the folder in SegNet layout. Appends; go on by running again.
set -eu
cd "$(dirname "$0")/../.."
pixels="10682767,14750079,623349,20076880,2845085,6166762,743859,714595,3719877,405385,184967" # of the training set: robustseg doctor --all
changes() {
    for n in 4 3 2; do printf '%s\n' "--perturbation" "sea(budget='linf:$n/255', steps=30, class_pixels=($pixels))"; done
    printf "%s\n" "--perturbation" "sea(budget='linf:4/255', steps=100, class_pixels=($pixels))"
    printf '%s\n' "--perturbation" "pgd(budget='linf:4/255', steps=2, step_size='2.5/255', keep='last')" "--perturbation" "fgsm(budget='linf:4/255')"
    for noise in gaussian uniform sign salt_and_pepper; do
        for n in 4 8; do printf '%s\n' "--perturbation" "$noise(rms='$n/255')"; done
    done
}
for network in ${NETWORKS:-zoo:erfnet-camvid zoo:erfnet-camvid-at50 zoo:erfnet-camvid-at}; do
    changes | tr '\n' '\0' | xargs -0 robustseg evaluate --network "$network" \
        --data "camvid(root='${CAMVID:-data/camvid}', split='test', subset='cpu')" --size 180x240 \
        --batch-size 4 --seed 0 --device cpu --precision bfloat16 --out "${OUT:-studies/adversarial-camvid}" "$@"
done
