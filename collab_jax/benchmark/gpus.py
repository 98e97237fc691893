"""GPUs that XLA can compile for without one, from the figures that NVIDIA publishes."""

from dataclasses import dataclass

__all__ = ["GPUS", "GPU"]


@dataclass(frozen=True)
class GPU:
    """A graphics card.

    Attributes:
      name: its name.
      compute_capability: (major, minor).
      cores: streaming multiprocessors.
      units_per_core: float32 units in one of them.
      threads_per_core: most threads that one of them holds.
      shared_kib: shared memory of one of them, and the most that a block may ask for, in KiB.
      l2_kib: second-level cache, in KiB.
      gb_per_second: bandwidth of its memory.
      ghz: boost clock.
      memory_gib: size of its memory.
    """

    name: str
    compute_capability: tuple[int, int]
    cores: int
    units_per_core: int
    threads_per_core: int
    shared_kib: tuple[int, int]
    l2_kib: int
    gb_per_second: int
    ghz: float
    memory_gib: int

    def target_config(self) -> str:
        """The description that XLA's compile-only client reads."""
        major, minor = self.compute_capability
        fields = {
            "core_count": self.cores,
            "fpus_per_core": self.units_per_core,
            "threads_per_warp": 32,
            "threads_per_block_limit": 1024,
            "threads_per_core_limit": self.threads_per_core,
            "shared_memory_per_block": 48 << 10,
            "shared_memory_per_block_optin": self.shared_kib[1] << 10,
            "shared_memory_per_core": self.shared_kib[0] << 10,
            "registers_per_block_limit": 65536,
            "registers_per_core_limit": 65536,
            "block_dim_limit_x": 2147483647,
            "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535,
            "thread_dim_limit_x": 1024,
            "thread_dim_limit_y": 1024,
            "thread_dim_limit_z": 64,
            "memory_bandwidth": self.gb_per_second * 10**9,
            "l2_cache_size": self.l2_kib << 10,
            "clock_rate_ghz": self.ghz,
            "device_memory_size": self.memory_gib << 30,
        }
        lines = "\n".join(f"  {name}: {value}" for name, value in fields.items())
        return (
            'platform_name: "CUDA"\n'
            f'device_description_str: "{self.name}"\n'
            "runtime_version { major: 12 minor: 9 patch: 0 }\n"
            "dnn_version_info { major: 9 minor: 10 patch: 0 }\n"
            "gpu_device_info {\n"
            f"  cuda_compute_capability {{ major: {major} minor: {minor} }}\n{lines}\n}}\n"
        )


GPUS = {
    "h100": GPU("NVIDIA H100", (9, 0), 132, 128, 2048, (228, 227), 51200, 3350, 1.98, 80),
    "a100": GPU("NVIDIA A100", (8, 0), 108, 64, 2048, (164, 163), 40960, 2040, 1.41, 80),
    "rtx2080ti": GPU("NVIDIA RTX 2080 Ti", (7, 5), 68, 64, 1024, (64, 64), 5632, 616, 1.545, 11),
}
"""The cards that can be planned for, by the name that the command line takes."""
