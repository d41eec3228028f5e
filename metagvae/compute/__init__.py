"""Where numbers are computed: device and precision, several processes, statistics of a whole batch."""
