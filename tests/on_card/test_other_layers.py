from tests.test_other_layers import *  # noqa: F403
