"""The trusted side of the metric. Only programs in here, in processes of their own, ever read sealed data."""
