#!/bin/sh
# The shipped networks, attacked while they learned or not, on eight made-up streets at 192x96: SEA (3 x 30 steps) at two sizes, and noise.
# Appends; go on by running again.
set -eu
cd "$(dirname "$0")/../.."
for network in ${NETWORKS:-zoo:erfnet-streets zoo:erfnet-streets-at2 zoo:erfnet-streets-at}; do
    robustseg evaluate --network "$network" --data "streets(scenes=8, frames=1, size='96x192', split='test')" \
        --perturbation "sea(budget='linf:4/255', steps=30)" --perturbation "sea(budget='linf:2/255', steps=30)" \
        --perturbation "gaussian(rms='8/255')" --perturbation "uniform(rms='8/255')" --perturbation "sign(rms='8/255')" \
        --perturbation "salt_and_pepper(rms='8/255')" --batch-size 4 --seed 0 --device cpu --out "${OUT:-studies/adversarial-streets}" "$@"
done
