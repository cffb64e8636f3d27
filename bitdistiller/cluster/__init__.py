"""The cluster: what the scheduler says, jobs outside of the DAG, and what is checked before the first job."""
