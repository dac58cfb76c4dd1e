"""Imports what a run of `gvvad-train generate` imports, the part that diffusers puts off too."""

from training.generate.hub import diffusers_module

__all__ = ["CogVideoXPipeline"]

CogVideoXPipeline = diffusers_module().CogVideoXPipeline
