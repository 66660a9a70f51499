"""kvmscen: a declarative scenario engine for KVM."""

__version__ = "0.1.0"
