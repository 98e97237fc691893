"""Small models in the styles that people write, none of which knows of local features."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Block(nn.Module):
    """Convolution, norm and activation without names, as in Flax's own examples."""

    filters: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train):
        conv = partial(nn.Conv, use_bias=False, padding="SAME")
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        skip = x
        x = conv(self.filters, (3, 3), self.stride)(x)
        x = nn.relu(norm()(x))
        x = conv(self.filters, (3, 3))(x)
        x = norm(scale_init=nn.initializers.ones)(x)
        if skip.shape != x.shape:
            skip = conv(self.filters, (1, 1), self.stride, name="proj_conv")(skip)
            skip = norm(name="proj_norm")(skip)
        return nn.relu(x + skip)


class UnnamedResNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = Block(4)(x, train)
        x = Block(6, stride=2)(x, train)
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class EncoderBlock(nn.Module):
    """A layer of a transformer that hands on the mask and gives its attention's output too."""

    @nn.compact
    def __call__(self, carry, mask, train):
        x, scale = carry
        y = nn.LayerNorm()(x)
        y = nn.MultiHeadDotProductAttention(2, name="attention")(y, mask=mask)
        y = nn.Dropout(0.5, deterministic=not train)(y)
        x = x + scale * y
        z = nn.Dense(8, name="up")(nn.LayerNorm()(x))
        x = x + nn.Dense(x.shape[-1], name="down")(nn.gelu(z))
        return (x, scale), {"attention": y}


class Transformer(nn.Module):
    lifted: tuple[str, ...] = ("intermediates",)
    depth: int = 2

    @nn.compact
    def __call__(self, tokens, train):
        x = nn.Embed(7, 4, name="embed")(tokens)
        mask = nn.make_attention_mask(tokens > 0, tokens > 0)
        stack = nn.scan(
            nn.remat(EncoderBlock, static_argnums=(3,)),
            variable_axes={"params": 0, **dict.fromkeys(self.lifted, 0)},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.depth,
        )
        (x, _), _ = stack(name="blocks")((x, jnp.float32(0.5)), mask, train)
        return nn.Dense(3, name="classifier")(x[:, 0])


def layer(filters, stride, relu=True):
    parts = [nn.Conv(filters, (3, 3), stride, use_bias=False), nn.GroupNorm(2)]
    return nn.Sequential([*parts, nn.relu] if relu else parts)


class FactoryNet(nn.Module):
    """Built in `setup` of what a function makes."""

    def setup(self):
        self.stem = layer(4, 1)
        self.main = [layer(4, 1), layer(4, 1)]
        self.shortcut = layer(4, 1, relu=False)
        self.head = nn.Dense(3)

    def __call__(self, x, train):
        x = self.stem(x)
        y = self.shortcut(x)
        for part in self.main:
            x = part(x)
        return self.head((x + y).mean(axis=(1, 2)))


class RecordingLayer(nn.Module):
    """Writes its activation into a dictionary, and sows an auxiliary loss."""

    filters: int

    @nn.compact
    def __call__(self, x, train, acts=None):
        x = nn.Conv(self.filters, (3, 3), use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        if acts is not None:
            acts[self.name] = x
            acts.setdefault("order", []).append(x.mean())
        self.sow("losses", "decay", (x**2).mean())
        return x


class RecordingNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        acts: dict[str, Any] = {"input": x}
        for number in range(2):
            x = RecordingLayer(4, name=f"layer{number}")(x, train, acts)
        extra = acts["layer0"].mean(axis=(1, 2)) + sum(acts["order"])
        return nn.Dense(3)(x.mean(axis=(1, 2)) + extra), acts


def tokens(batch=4, length=5):
    return jax.random.randint(jax.random.key(5), (batch, length), 0, 7)


def images(batch=4, size=6):
    return jax.random.normal(jax.random.key(5), (batch, size, size, 3))
