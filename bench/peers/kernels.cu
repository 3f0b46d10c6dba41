// What the protocol needs beside the contestants: the read line and the clock probe.

// Reads a packed weight and its scales, in chunks of 16 bytes, and does nothing with them: the
// practical limit of a launch. The same loop as w4_read in templates/device/utility.cu.
extern "C" __global__ void peers_read(const uint4* weight, int weight_chunks, const uint4* scales,
                                      int scale_chunks, unsigned* sink) {
  constexpr int kAhead = 4;
  const int first = blockIdx.x * blockDim.x + threadIdx.x;
  const int stride = gridDim.x * blockDim.x;
  unsigned mixed = 0;
  for (int i = first; i < weight_chunks; i += kAhead * stride) {
    uint4 v[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      v[j] = make_uint4(0, 0, 0, 0);
      if (i + j * stride < weight_chunks) v[j] = __ldg(weight + i + j * stride);
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) mixed ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (int i = first; i < scale_chunks; i += stride) {
    const uint4 v = __ldg(scales + i);
    mixed ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (mixed == 0x9e3779b9U) *sink = mixed;  // so that the loads count as used
}

// Cycles of this SM, nanoseconds of the global timer, and which SM: see gpu/clock_probe.cc, whose
// wait for the timer's next step this repeats.
extern "C" __global__ void peers_clock(long long* reading) {
  long long first, now, cycles;
  unsigned sm;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(first));
  int tries = 0;
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now == first && ++tries < 256);
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles));
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  reading[0] = cycles;
  reading[1] = now;
  reading[2] = sm + 1;
}
