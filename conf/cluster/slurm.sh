#!/usr/bin/env bash
# A SLURM job: `sbatch conf/cluster/slurm.sh` in the project folder, which must have the same path on all
# nodes. Starts a Ray node on every machine of the job, runs the pipeline on them, and trains on all.
# Not run by our tests, which have no SLURM; `make cluster` tests two Ray nodes on one machine.
#SBATCH --job-name=vggheads
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@120
set -euo pipefail
PORT=6379
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# All nodes must have the same token (required by Ray 2.60).
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(openssl rand -hex 32)}
export RAY_USAGE_STATS_ENABLED=0

srun --nodes=1 --ntasks=1 -w "$HEAD" .venv/bin/ray start --head --port="$PORT" --block &
sleep 20
others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
  srun --nodes="$others" --ntasks="$others" --exclude="$HEAD" \
    .venv/bin/ray start --address="$HEAD:$PORT" --block &
fi
# The driver runs on the head node. params.yaml must state run.engine: ray, run.ray.address: auto.
driver() {
  srun --overlap --nodes=1 --ntasks=1 -w "$HEAD" .venv/bin/vggheads "$@"
}
# A process per GPU on all nodes; Ray's actors have ended with their stage. docs/scale.md says how
# they share the work; batch_size in params.yaml is that of one process.
train() {
  srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=4 --cpus-per-task=4 \
    --kill-on-bad-exit=1 --wait=0 .venv/bin/vggheads materialize "$1"
}
driver materialize filtered_dataset --upstream
train trained_model
driver demo
