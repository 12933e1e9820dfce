#!/bin/sh
# The study of Arnab et al. 2018 on CamVid, tier camvid: trains the networks by one recipe, measures, writes tables, verdicts, words and figures.
# DATA is the folder that holds camvid in SegNet layout. Goes on by running again. To train several networks at once, run it in several shells first,
# each with `--train-only --network NAME …`; names: erfnet erfnet-seed1 erfnet-seed2 fcn8s fcn8s-seed1 fcn8s-seed2 deeplabv2 pspnet segnet enet
# erfnet-eighth erfnet-quarter erfnet-half.
set -eu
cd "$(dirname "$0")/../.."
out="${OUT:-runs/arnab2018-camvid}"
robustseg reproduce arnab2018 --tier camvid --data "${DATA:-data}" --device cpu --out "$out" "$@"
if [ -f "$out/verdicts.json" ]; then
    mkdir -p studies/arnab2018-camvid/crf
    cp "$out/records.jsonl" "$out/tables.md" "$out/verdicts.json" "$out/figures.html" studies/arnab2018-camvid/
    cp "$out/crf/audit.jsonl" studies/arnab2018-camvid/crf/
fi
