#!/bin/sh
# The study of Baer et al. 2020 on CamVid, tier camvid, protocol cpu: trains nine adaptive students, measures, writes tables and verdicts.
# DATA is the folder with camvid and video. Goes on by running again.
set -eu
cd "$(dirname "$0")/../.."
out="${OUT:-runs/baer2020-camvid}"
robustseg reproduce baer2020 --tier camvid --data "${DATA:-data}" --device cpu --out "$out"
cp "$out/records.jsonl" "$out/tables.md" "$out/verdicts.json" studies/baer2020-camvid/
