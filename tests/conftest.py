"""What holds for the whole suite."""

from hypothesis import HealthCheck, settings

# how long an example takes says something about the machine, not about the code
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
