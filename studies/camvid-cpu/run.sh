#!/bin/sh
# Protocol cpu on CamVid: 40 test frames at 240x180. CAMVID is the folder in SegNet layout. Appends; go on by running again.
set -eu
cd "$(dirname "$0")/../.."
changes() {
    for n in 1 2 4 8 10; do
        for noise in gaussian uniform sign salt_and_pepper; do printf '%s\n' "--perturbation" "$noise(rms='$n/255')"; done
        for attack in fgsm llcm; do printf '%s\n' "--perturbation" "$attack(budget='linf:$n/255')"; done
        printf '%s\n' "--perturbation" "pgd(budget='linf:$n/255', steps=20)"
    done
}
for network in ${NETWORKS:-zoo:erfnet-camvid zoo:deeplabv3plus-camvid}; do
    changes | tr '\n' '\0' | xargs -0 robustseg evaluate --network "$network" \
        --data "camvid(root='${CAMVID:-data/camvid}', split='test', subset='cpu')" --size 180x240 \
        --batch-size 4 --seed 0 --device cpu --out studies/camvid-cpu "$@"
done
