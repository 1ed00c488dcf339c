#!/usr/bin/env bash
# The rows of the tables *-small.csv in this folder, a command a row.
#
#   results/small.sh STREAM ROW SEED        learn, and add the row; what was stopped continues, what is there stays
#   results/small.sh STREAM all             every row, seeds 0 to 2
#   results/small.sh STREAM tune METHOD     the trial on the first three tasks of seed 0 that a penalty's weight comes from
#
# STREAM is cifar100-10, cifar100-coarse, real, real-colour, or real-shifted. Needs LIFELONG_DATA (a folder with their sources),
# LIFELONG_WEIGHTS (for par and expert-gate) and the environment in which lifelong is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-}
case $name in
    cifar100-10) stream="cifar100-10?train_per_class=100&valid_per_class=20&test_per_class=50" batch=32 ;;
    cifar100-coarse) stream="cifar100-coarse?tasks=6&train_per_class=100&valid_per_class=20&test_per_class=50" batch=32 ;;
    # 200 training images a class in the first task and 40 in the others: as in S-, but for half of the first task's.
    real | real-colour | real-shifted) stream="examples/$name.toml?train_per_class=200&valid_per_class=20&test_per_class=50" batch=16 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit ;;
esac
common="--epochs 10 --patience 0 --threads 1"
steps="--batch-size $batch --lr 0.02"
rows="par finetune independent joint lwf ewc mas er agem gpm hat cat packnet wsn supsup pnn expert-gate mntdp-d mntdp-s learn-to-grow sg-f lmc"
out=runs/$name-small

settings() { # what differs between the rows
    case $1 in
        par) echo "--init-channels 16 $steps --search-epochs 5 --search-lr 0.05" ;;
        # Gates close half the units of a task and hold what earlier tasks use: a network of 16 channels has too few.
        hat | cat) echo "--init-channels 32 $steps --stem-pool" ;;
        # As short a search as PAR's; a path that is decided within it.
        learn-to-grow) echo "--init-channels 16 $steps --stem-pool --search-epochs 5 --search-lr 0.05 --search-alpha-lr 0.1" ;;
        mntdp-s) echo "--init-channels 16 $steps --stem-pool --arch-lr 0.1" ;;
        lmc) echo "--init-channels 16 $steps" ;;
        ewc) echo "--init-channels 16 $steps --stem-pool --fisher sampled" ;;
        *) echo "--init-channels 16 $steps --stem-pool" ;;
    esac
}
chosen() { # by the trials on cifar100-10
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
    local flags
    flags=$(echo --method "$1" --seed "$2" $common $(settings "$1") $(chosen "$1"))
    # shellcheck disable=SC2086
    lifelong run --stream "$stream" $flags --out "$out/$1-seed$2"
    python results/add.py "results/$name-small.csv" --command "lifelong run --stream '$stream' $flags" "$out/$1-seed$2"
}

case ${2:-} in
    all) for seed in 0 1 2; do for method in $rows; do row "$method" "$seed"; done; done ;;
    # shellcheck disable=SC2046,SC2086
    tune) lifelong tune --stream "${stream/\?/?tasks=3&}" --method "$3" $common $(settings "$3") --grid "$(grid "$3")" --tolerance 0.05 --out "$out/tune-$3" ;;
    *) row "$2" "$3" ;;
esac
