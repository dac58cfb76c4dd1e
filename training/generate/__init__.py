"""Descriptions to videos, by any text-to-video pipeline of diffusers."""
