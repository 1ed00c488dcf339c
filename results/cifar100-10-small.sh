#!/usr/bin/env bash
# The rows of results/cifar100-10-small.csv, a command a row.
#
#   results/cifar100-10-small.sh ROW SEED        learn, and add the row; what was stopped continues, what is there stays
#   results/cifar100-10-small.sh all             every row, seeds 0 to 2
#   results/cifar100-10-small.sh tune METHOD     the trial on the first three tasks of seed 0 that a penalty's weight comes from
#
# Needs LIFELONG_DATA (a folder with cifar100), LIFELONG_WEIGHTS (for par and expert-gate) and the environment in which lifelong is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

amounts="train_per_class=100&valid_per_class=20&test_per_class=50"
common="--epochs 10 --patience 0 --threads 1"
rows="par finetune independent joint lwf ewc mas er agem gpm hat cat pnn expert-gate mntdp-d mntdp-s learn-to-grow sg-f lmc"
out=runs/cifar100-10-small

settings() { # what differs between the rows
    case $1 in
        par) echo "--init-channels 16 --batch-size 32 --lr 0.02 --search-epochs 5 --search-lr 0.05" ;;
        # Gates close half the units of a task and hold what earlier tasks use: a network of 16 channels has too few.
        hat | cat) echo "--init-channels 32 --batch-size 32 --lr 0.02 --stem-pool" ;;
        # As short a search as PAR's; a path that is decided within it.
        learn-to-grow) echo "--init-channels 16 --batch-size 32 --lr 0.02 --stem-pool --search-epochs 5 --search-lr 0.05" ;;
        mntdp-s) echo "--init-channels 16 --batch-size 32 --lr 0.02 --stem-pool --arch-lr 0.1" ;;
        lmc) echo "--init-channels 16 --batch-size 32 --lr 0.02" ;;
        ewc) echo "--init-channels 16 --batch-size 32 --lr 0.02 --stem-pool --fisher sampled" ;;
        *) echo "--init-channels 16 --batch-size 32 --lr 0.02 --stem-pool" ;;
    esac
}
chosen() { # by the trials
    case $1 in
        lwf) echo "--kd-weight 4" ;;
        ewc) echo "--penalty-weight 10" ;;
        mas) echo "--penalty-weight 0.1" ;;
    esac
}
grid() { # from stable to plastic
    case $1 in
        lwf) echo "kd-weight=4,2,1" ;;
        ewc) echo "penalty-weight=1000,100,10" ;;
        mas) echo "penalty-weight=1,0.1,0.01" ;;
    esac
}

row() {
    local stream="cifar100-10?$amounts" flags
    flags=$(echo --method "$1" --seed "$2" $common $(settings "$1") $(chosen "$1"))
    # shellcheck disable=SC2086
    lifelong run --stream "$stream" $flags --out "$out/$1-seed$2"
    python results/add.py results/cifar100-10-small.csv --command "lifelong run --stream '$stream' $flags" "$out/$1-seed$2"
}

case ${1:-} in
    all) for seed in 0 1 2; do for name in $rows; do row "$name" "$seed"; done; done ;;
    # shellcheck disable=SC2046,SC2086
    tune) lifelong tune --stream "cifar100-10?tasks=3&$amounts" --method "$2" $common $(settings "$2") --grid "$(grid "$2")" --tolerance 0.05 --out "$out/tune-$2" ;;
    "") sed -n '2,8s/^# \{0,1\}//p' "$0" ;;
    *) row "$1" "$2" ;;
esac
