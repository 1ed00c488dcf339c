"""Lifelong learning of image-classification tasks."""
