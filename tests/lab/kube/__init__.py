"""Kubernetes and containerd as programs of the lab: from KUBEBUILDER_ASSETS or PATH when they are there, else built."""
