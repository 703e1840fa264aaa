"""Writes that are noticed whoever calls the model: function transforms, tied layers, copies of wrapped models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import assert_masked, make_batch, mlp, plain_sgd, train


def static(model: nn.Module, **settings: object) -> SparseTraining:
    return SparseTraining(model, plain_sgd(model, 0.1), "static", sparsity=0.6, total_steps=20, **settings)


def write(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)


TRANSFORMS = {
    "jacrev": lambda model: torch.func.jacrev(model)(torch.randn(8)),
    "hessian": lambda model: torch.func.hessian(lambda x: model(x).sum())(torch.randn(8)),
    "vmap": lambda model: torch.func.vmap(model)(torch.randn(3, 8)),
    "per-sample gradients": lambda model: torch.func.vmap(
        torch.func.grad(lambda weights, x: torch.func.functional_call(model, weights, (x,)).square().sum()), (None, 0)
    )({name: weight.detach() for name, weight in model.named_parameters()}, torch.randn(3, 8)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_write_is_masked_where_a_function_transform_calls_the_model(transform):
    model = mlp(8, 12, 4)
    sparse = static(model)
    write(model)
    found = TRANSFORMS[transform](model)
    assert_masked(model, sparse)
    list(train(model, sparse, (8,), range(2)))
    assert found is not None


def test_what_a_transform_gives_after_a_write_is_that_of_the_masked_weights():
    model = mlp(8, 12, 4)
    sparse = static(model)
    write(model)
    inputs = torch.randn(8)
    found = torch.func.jacrev(model)(inputs)
    assert_masked(model, sparse)
    assert torch.equal(found, torch.func.jacrev(model)(inputs))


class Tied(nn.Module):
    """Two layers that share a weight; an autoencoder, say."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 8), nn.Linear(8, 8)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_write_into_a_shared_weight_is_masked_whichever_layer_is_called_alone(part):
    model = Tied()
    sparse = static(model)
    write(model)
    getattr(model, part)(make_batch((8,), 0))
    assert_masked(model, sparse)


def test_a_copy_of_a_compiled_model_masks_writes_too():
    torch._dynamo.reset()
    compiled = torch.compile(mlp(8, 12, 4), backend="eager")
    sparse = static(compiled)
    twin, _, again = copy.deepcopy((compiled, sparse.optimizer, sparse))
    for model, training in ((twin, again), (compiled, sparse)):
        model(make_batch((8,), 0))
        write(model)
        model(make_batch((8,), 0))
        assert_masked(model._orig_mod, training)


@pytest.mark.parametrize("order", ["outside", "inside"])
def test_whichever_wrapper_is_called_writes_are_masked(order):
    torch._dynamo.reset()
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        bare = mlp(8, 12, 4)
        if order == "outside":
            model = torch.compile(DistributedDataParallel(bare), backend="eager")
            parts = [model, model._orig_mod, bare]
        else:
            model = DistributedDataParallel(torch.compile(bare, backend="eager"))
            parts = [model, model.module, bare]
        sparse = static(model)
        list(train(model, sparse, (8,), range(2)))
        for part in parts:
            write(bare)
            part(make_batch((8,), 0))
            assert_masked(bare, sparse)
    finally:
        distributed.destroy_process_group()


def test_hooks_of_the_users_own_stay():
    model = mlp(8, 12, 4)
    first_inputs: dict = {}
    model.register_forward_pre_hook(first_inputs.setdefault)  # a method of an empty dict
    static(model)
    model(make_batch((8,), 0))
    assert list(first_inputs) == [model]


@pytest.mark.parametrize("compute", ["masked", "sparse"])
def test_what_is_made_in_inference_mode_cannot_be_trained(compute):
    model = mlp(8, 4)
    with torch.inference_mode(), pytest.raises(UserError, match=r"cannot be made inside torch\.inference_mode"):
        static(model, compute=compute)
    with torch.inference_mode():
        model = mlp(8, 4)
    with pytest.raises(UserError, match=r"0\.weight was made in torch\.inference_mode"):
        static(model, compute=compute)


@pytest.mark.parametrize("how", ["in place", "a part"])
def test_sparse_layers_are_refused_where_anything_is_compiled(how):
    model = mlp(8, 12, 4)
    if how == "in place":
        model.compile(backend="eager")
    else:
        model[0] = torch.compile(model[0], backend="eager")
    with pytest.raises(UserError, match="sparse layers cannot be compiled"):
        static(model, compute="sparse")
    static(model, compute="masked")


@pytest.mark.parametrize("when", ["at once, where the optimizer is given the new one", "at the next update"])
@pytest.mark.parametrize("compute", ["masked", "sparse"])
def test_a_layer_put_in_the_place_of_another_is_an_error(compute, when):
    model = mlp(8, 12, 4)
    sparse = SparseTraining(
        model, plain_sgd(model, 0.1), "set-itop", sparsity=0.6, total_steps=20, update_interval=3, compute=compute
    )
    list(train(model, sparse, (8,), range(1)))
    model[2] = nn.Linear(12, 4)
    if "at once" in when:
        sparse.optimizer.add_param_group({"params": model[2].parameters()})
    else:
        list(train(model, sparse, (8,), range(1, 2)))
    with pytest.raises(UserError, match=r"2\.weight: not in the model any more"):
        list(train(model, sparse, (8,), range(2, 3)))
