"""Mirror maps: invertible functions of all task parameters, learned with the start."""
