#!/usr/bin/env bash
# The rows of pretrained.csv in this folder: classifiers on frozen ImageNet features, and PAR on top of them.
#
#   results/pretrained.sh STREAM ROW SIZE SEED   learn, and add the row; what was stopped continues, what is there stays
#   results/pretrained.sh STREAM all             every row, at the images' size and at 64 pixels, seeds 0 to 2
#
# A row is a method, or fecam-class or fecam-common for other covariances, or ranpac-copies4 for a floor that is fitted to four changed copies
# of each training image too.
#
# STREAM is real, cifar100-10, far, blended (which results/blended.py makes) or whole (all of cifar100-10). Needs LIFELONG_DATA (a folder
# with their sources), LIFELONG_WEIGHTS and the environment in which lifelong is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-}
case $name in
    real) stream="examples/real.toml?train_per_class=200&valid_per_class=20&test_per_class=50" ;;
    cifar100-10) stream="cifar100-10?train_per_class=100&valid_per_class=20&test_per_class=50" ;;
    far) stream="examples/far.toml" ;;
    blended) stream="runs/blended/blended.toml" && { [ -f "$stream" ] || python results/blended.py runs/blended; } ;;
    whole) stream="cifar100-10?train_per_class=400&valid_per_class=50&test_per_class=99" ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" && exit ;;
esac
rows="ncm linear-probe ranpac fecam par-head"
case $name in far | blended) rows="$rows par-adapter par-side par-auto" ;; esac

settings() {
    case $1 in
        par-head) echo "--method par --expert head" ;;
        par-adapter) echo "--method par --expert adapter --enough-accuracy 0.99 --epochs 15 --patience 0 --batch-size 32 --lr 0.02" ;;
        par-side) echo "--method par --expert side --enough-accuracy 0.95 --batch-size 32 --patience 0" ;;
        par-auto) echo "--method par --expert auto --enough-accuracy 0.95 --epochs 15 --patience 0 --batch-size 32 --lr 0.02" ;;
        fecam-*) echo "--method fecam --covariance ${1#fecam-}" ;;
        *-copies*) echo "--method ${1%-copies*} --feature-copies ${1##*-copies}" ;;
        *) echo "--method $1" ;;
    esac
}

row() {
    local flags out
    flags="$(settings "$1") --feature-size $2 --seed $3 --threads 1"
    out=runs/pretrained/$name-$1-$2-seed$3
    # shellcheck disable=SC2086
    lifelong run --stream "$stream" $flags --out "$out"
    python results/add.py results/pretrained.csv --command "lifelong run --stream '$stream' $flags" "$out"
}

case ${2:-} in
    all) for seed in 0 1 2; do for size in 64 task; do for method in $rows; do row "$method" "$size" "$seed"; done; done; done ;;
    *) row "$2" "$3" "$4" ;;
esac
