"""A regularizer of one's own: EWC inside a shared expert, instead of the paper's distillation.

lifelong run --stream digits --preset quick --plugin examples/new_regularizer.py --regularizer springs --kd-weight 100
"""

import torch
import torch.nn.functional as F

import lifelong


class Springs(lifelong.Regularizer):
    """Weights that mattered for the expert's earlier tasks are held by springs (Kirkpatrick et al., 2017)."""

    def loss(self, shared):
        """Cross-entropy, and the springs."""
        weights, kept = dict(shared.expert.named_parameters()), shared.kept

        def penalized(batch):
            springs = sum((kept["stiffness"][name] * (weights[name] - kept["rest"][name]) ** 2).sum() for name in weights)
            return F.cross_entropy(shared.head(shared.expert(batch.inputs)), batch.labels) + shared.settings.kd_weight / 2 * springs

        return penalized

    def keep(self, shared):
        """Return the current weights, and the squared gradients of the task's training images, added to earlier ones."""
        weights = dict(shared.expert.named_parameters())
        stiffness = shared.kept["stiffness"] if shared.kept else {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for weight in weights.values():
            weight.requires_grad_(True)
        for image, label in zip(shared.examples.prepare(shared.examples.train).split(1), shared.examples.train_labels, strict=True):
            error = F.cross_entropy(shared.head(shared.expert(image)), label[None])
            for name, gradient in zip(weights, torch.autograd.grad(error, weights.values()), strict=True):
                stiffness[name] = stiffness[name] + gradient**2 / len(shared.examples.train)
        rest = {name: weight.detach().requires_grad_(False).clone() for name, weight in weights.items()}
        return {"stiffness": stiffness, "rest": rest}


lifelong.register_regularizer("springs", Springs, summary="springs on weights that mattered")
