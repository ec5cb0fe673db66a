"""Job: make a registered model version the champion that users load."""

import dagster as dg

from ops.resources import ModelStore


class PromotionConfig(dg.Config):
    """Which version becomes which alias."""

    model: str = "vggheads"
    """Name in MLflow's registry."""
    version: str | None = None
    """The version; none given: the newest."""
    alias: str = "champion"
    """Alias to move, loaded as `models:/<model>@<alias>`."""


@dg.op
def promote_model(
    context: dg.OpExecutionContext, config: PromotionConfig, mlflow: ModelStore
) -> str:
    """Move the alias; returns the version that has it now.

    Raises:
        dg.Failure: the registry has no such model.
    """
    from mlflow import MlflowClient

    client = MlflowClient(mlflow.tracking_uri)
    versions = client.search_model_versions(f"name = '{config.model}'")
    if not versions:
        known = sorted(model.name for model in client.search_registered_models())
        raise dg.Failure(
            f"no registered model '{config.model}'; there are {known}", allow_retries=False
        )
    version = config.version or max((v.version for v in versions), key=int)
    client.set_registered_model_alias(config.model, config.alias, version)
    context.log.info("%s version %s is now '%s'", config.model, version, config.alias)
    return str(version)


@dg.job(description="Assign the alias `champion` to a version of the registered model.")
def model_promotion_job() -> None:
    """Manual promotion, after reviewing the benchmark."""
    promote_model()
