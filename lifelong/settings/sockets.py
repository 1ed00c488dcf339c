"""Registries that settings and flags choose from, and that users can extend.

They hold measures, decision rules, regularizers, allocations, networks, extractors, observers and engines.
"""

from typing import Any

from lifelong.registry import Entry, Registry

MEASURES: Registry[Any] = Registry(
    "measure",
    Entry(
        "prototype-kl",
        "lifelong.relatedness.measures:PrototypeKL",
        "KL divergence, estimated from distances to the nearest prototypes",
        "Wang et al., CVPR 2023, Eq. 2-4",
    ),
    Entry(
        "prototype-kl-loo",
        "lifelong.relatedness.measures:LeaveOneOutKL",
        "the same, each image left out of its own prototype",
        "Wang et al., CVPR 2023, Eq. 2-4",
    ),
    Entry(
        "knn-kl",
        "lifelong.relatedness.feature_measures:NeighborKL",
        "KL divergence, estimated from nearest neighbors; needs keep_features",
        "Wang et al., CVPR 2023, Eq. 1",
    ),
    Entry(
        "frechet",
        "lifelong.relatedness.gaussian_measures:Frechet",
        "Fréchet distance of Gaussians, divided by their spread",
        "Dowson & Landau, 1982",
    ),
    Entry(
        "frechet-diagonal",
        "lifelong.relatedness.gaussian_measures:DiagonalFrechet",
        "the same, of means and variances only",
        "Dowson & Landau, 1982",
    ),
    Entry(
        "mmd",
        "lifelong.relatedness.feature_measures:KernelMean",
        "maximum mean discrepancy, by random Fourier features",
        "Gretton et al., JMLR 2012",
    ),
    Entry("cosine", "lifelong.relatedness.feature_measures:PrototypeCosine", "angles to the most similar class prototypes", ""),
    Entry("subspace", "lifelong.relatedness.feature_measures:Subspace", "overlap of the features' principal subspaces", ""),
    Entry(
        "mahalanobis",
        "lifelong.relatedness.gaussian_measures:Mahalanobis",
        "Mahalanobis distance to the nearest class",
        "Lee et al., NeurIPS 2018",
    ),
    Entry(
        "leep",
        "lifelong.relatedness.expert_measures:Leep",
        "how well an earlier head's answers predict the new labels",
        "Nguyen et al., ICML 2020",
    ),
    Entry(
        "logme",
        "lifelong.relatedness.expert_measures:LogMe",
        "evidence of a Bayesian linear model on an expert's features",
        "You et al., ICML 2021",
    ),
    Entry(
        "h-score",
        "lifelong.relatedness.expert_measures:HScore",
        "spread of an expert's features between classes, shrunk",
        "Ibrahim et al., ECML 2022",
    ),
    Entry(
        "autoencoder",
        "lifelong.relatedness.autoencoder_measure:AutoEncoders",
        "errors of earlier tasks' auto-encoders",
        "Aljundi et al., CVPR 2017",
    ),
    Entry(
        "nearest-neighbors",
        "lifelong.relatedness.expert_measures:NearestNeighbors",
        "errors of nearest neighbors on an expert's features",
        "Veniat et al., ICLR 2021",
    ),
)
"""Measures of how far a task is from each earlier one; see `lifelong.relatedness.measures`."""

REGULARIZERS: Registry[Any] = Registry(
    "regularizer",
    Entry(
        "distillation",
        "lifelong.methods.regularizers:Distillation",
        "preserves the outputs of the group's earlier heads on the new images",
        "Wang et al., CVPR 2023, Eq. 7-9",
    ),
    Entry(
        "feature-distillation",
        "lifelong.methods.more_regularizers:FeatureDistillation",
        "preserves the expert's features of the new images",
        "Romero et al., ICLR 2015",
    ),
    Entry(
        "ewc",
        "lifelong.methods.more_regularizers:EWC",
        "holds weights that matter to earlier tasks by the Fisher information",
        "Kirkpatrick et al., PNAS 2017",
    ),
    Entry(
        "mas",
        "lifelong.methods.more_regularizers:MAS",
        "holds weights that the answers of earlier tasks depend on",
        "Aljundi et al., ECCV 2018",
    ),
    Entry("l2-sp", "lifelong.methods.more_regularizers:L2SP", "pulls to the weights before the task", "Li et al., ICML 2018"),
    Entry("none", "lifelong.methods.more_regularizers:Free", "preserves nothing: the expert is fine-tuned", ""),
    Entry("frozen", "lifelong.methods.more_regularizers:Frozen", "does not train the expert, only the new head", ""),
)
"""What preserves the earlier tasks of a shared expert; see `lifelong.methods.regularizers`."""

DECISIONS: Registry[Any] = Registry(
    "decision",
    Entry(
        "thresholds",
        "lifelong.methods.decisions:Thresholds",
        "the nearest group's within alpha, whose cell is reused within beta",
        "Wang et al., CVPR 2023, section 3",
    ),
    Entry(
        "z-score",
        "lifelong.methods.density_rules:ZScore",
        "the group's whose auto-encoder errs on the task as on its own",
        "SEMA, Wang et al., CVPR 2025",
    ),
    Entry(
        "posterior",
        "lifelong.methods.density_rules:Posterior",
        "the most probable group's by Gaussians of features, unless a new expert is more probable",
        "PICLE, Valkov et al., ICLR 2024",
    ),
    Entry(
        "outlier",
        "lifelong.methods.expert_rules:Outlier",
        "that to whose decoder the task is no outlier",
        "LMC, Ostapenko et al., NeurIPS 2021",
    ),
    Entry(
        "gradient-angle",
        "lifelong.methods.expert_rules:GradientAngle",
        "that of the group whose features hinder the task's gradients least",
        "LW2G, Feng et al., 2024",
    ),
    Entry(
        "validation-gain",
        "lifelong.methods.expert_rules:ValidationGain",
        "that whose features classify the task best, if as well as the frozen ones",
        "",
    ),
    Entry(
        "calibrated",
        "lifelong.methods.trial_rules:Calibrated",
        "the nearest group's within an alpha that trials of the first tasks set",
        "",
    ),
    Entry("oracle", "lifelong.methods.trial_rules:Oracle", "what is best on validation images after trying everything", ""),
)
"""Rules by which tasks share experts; see `lifelong.methods.decisions`."""

_CHOSEN = "lifelong.methods.chosen_cells"

ALLOCATIONS: Registry[Any] = Registry(
    "allocation",
    Entry(
        "variant",
        "lifelong.methods.allocations:ByVariant",
        "the nearest group's cell within beta, else a searched one; as the variant says",
        "Wang et al., CVPR 2023, section 3.3",
    ),
    Entry("searched", "lifelong.methods.allocations:Searched", "a searched cell", "Wang et al., CVPR 2023, section 3.3"),
    Entry("fixed", "lifelong.methods.allocations:Fixed", "the cell of fixed_cell", "Wang et al., CVPR 2023, Table 5"),
    Entry("random-cell", "lifelong.methods.allocations:RandomCell", "a cell drawn with the seed, another one for each task", ""),
    Entry("nearest-cell", "lifelong.methods.allocations:NearestCell", "the nearest group's cell at any distance", ""),
    Entry("warm-start", "lifelong.methods.allocations:WarmStart", "the nearest group's cell and weights, then trained alone", ""),
    Entry("best-start", "lifelong.methods.allocations:BestStart", "the best of the fixed cell and warm starts from the nearest groups", ""),
    Entry("best-of-k", f"{_CHOSEN}:BestOfK", "the best of some random cells by a short training", ""),
    Entry("most-parameters", f"{_CHOSEN}:MostParameters", "the largest of some random cells", ""),
    Entry("synflow", f"{_CHOSEN}:SynFlow", "of some random cells the one with the most synaptic flow", "Abdelfattah et al., ICLR 2021"),
    Entry("naswot", f"{_CHOSEN}:NASWOT", "of some random cells the one whose ReLUs tell images apart best", "Mellor et al., ICML 2021"),
    Entry("zico", f"{_CHOSEN}:ZiCo", "of some random cells the one with the steadiest gradients", "Li et al., ICLR 2023"),
    Entry("az-nas", f"{_CHOSEN}:AZNAS", "of some random cells the best by four ranked scores", "Lee & Ham, CVPR 2024"),
    Entry("search-warm", f"{_CHOSEN}:SearchedOn", "a searched cell; the search begins with the cells of earlier experts", ""),
    Entry("light-resnet18", f"{_CHOSEN}:Light", "the light ResNet-18, instead of a network of cells", "Veniat et al., ICLR 2021"),
)
"""Which expert a task gets that shares none; see `lifelong.methods.allocations`."""

BACKBONES: Registry[Any] = Registry(
    "backbone",
    Entry("light-resnet18", "lifelong.methods.backbone:light_resnet18", "the light ResNet-18", "Veniat et al., ICLR 2021"),
    Entry("cells", "lifelong.methods.backbone:cells", "PAR's cell network with the cell DARTS_V1", "Wang et al., CVPR 2023"),
    Entry("alexnet-hat", "lifelong.methods.backbone:alexnet_hat", "an AlexNet with biases", "Serrà et al., ICML 2018"),
    Entry("alexnet-gpm", "lifelong.methods.backbone:alexnet_gpm", "an AlexNet with batch norm and no biases", "Saha et al., ICLR 2021"),
    families={"timm": "lifelong.methods.backbone:of_timm"},
)
"""Networks of the baselines, which map images to features; see `lifelong.methods.backbone`."""

OBSERVERS: Registry[Any] = Registry(
    "observer",
    Entry("tensorboard", "lifelong.experiment.observers:TensorBoard", "event files in the run's folder tensorboard", ""),
    Entry("wandb", "lifelong.experiment.observers:WeightsAndBiases", "a run of Weights & Biases", ""),
    Entry("mlflow", "lifelong.experiment.observers:MLflow", "a run of MLflow", ""),
)
"""Observers that receive the progress of a run; see `lifelong.experiment.observers`."""

ENGINES: Registry[Any] = Registry(
    "engine",
    Entry("local", "lifelong.experiment.local:Local", "processes of this machine", ""),
    Entry("ray", "lifelong.experiment.on_ray:OnRay", "tasks of Ray, on a cluster of this machine (ray:ADDRESS: on a running one)", ""),
    Entry("slurm", "lifelong.experiment.on_slurm:OnSlurm", "an array job of Slurm (slurm:FILE: with the lines of a file)", ""),
    families={"ray": "lifelong.experiment.on_ray:of_address", "slurm": "lifelong.experiment.on_slurm:of_file"},
)
"""What carries out the runs of a sweep; see `lifelong.experiment.engine`."""

EXTRACTORS: Registry[Any] = Registry(
    "extractor",
    Entry("auto", "lifelong.relatedness.extractor:open_resnet18", "pixels for the stream 'digits', else resnet18", ""),
    Entry("resnet18", "lifelong.relatedness.extractor:open_resnet18", "a ResNet-18 trained on ImageNet", "Wang et al., CVPR 2023"),
    Entry("pixels", "lifelong.relatedness.extractor:open_pixels", "the normalized pixels, without weights", ""),
    Entry("squeezenet", "lifelong.relatedness.extractor:open_squeezenet", "a SqueezeNet 1.1 trained on ImageNet", "Iandola et al., 2016"),
    families={
        "file": "lifelong.relatedness.families.file:of_file",
        "timm": "lifelong.relatedness.families.timm:of_timm",
        "torchvision": "lifelong.relatedness.families.torchvision:of_torchvision",
        "hf": "lifelong.relatedness.families.hf:of_hf",
    },
)
"""Frozen features on which distances are measured; see `lifelong.relatedness.extractor`."""
