from tests.test_layer_variants import *  # noqa: F403
