"""Registries that settings choose from and users can extend: measures, regularizers, networks and extractors."""

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
)
"""What preserves the earlier tasks of a shared expert; see `lifelong.methods.regularizers`."""

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

EXTRACTORS: Registry[Any] = Registry(
    "extractor",
    Entry("auto", "lifelong.relatedness.extractor:open_resnet18", "pixels for the stream 'digits', else resnet18", ""),
    Entry("resnet18", "lifelong.relatedness.extractor:open_resnet18", "a ResNet-18 trained on ImageNet", "Wang et al., CVPR 2023"),
    Entry("pixels", "lifelong.relatedness.extractor:open_pixels", "the normalized pixels, without weights", ""),
    Entry("squeezenet", "lifelong.relatedness.extractor:open_squeezenet", "a SqueezeNet 1.1 trained on ImageNet", "Iandola et al., 2016"),
    families={
        "file": "lifelong.relatedness.families:of_file",
        "timm": "lifelong.relatedness.families:of_timm",
        "torchvision": "lifelong.relatedness.families:of_torchvision",
        "hf": "lifelong.relatedness.families:of_hf",
    },
)
"""Frozen features on which distances are measured; see `lifelong.relatedness.extractor`."""
