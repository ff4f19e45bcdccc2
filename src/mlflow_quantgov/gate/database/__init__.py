"""Our tables beside MLflow's, their transactions, and the triggers that guard both."""
