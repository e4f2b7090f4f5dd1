// The layout of logits in memory and registers: 16-byte chunks of one type. A chunk inside its row
// is read and written whole, a chunk at a row's end number by number.
//
// Everything here also compiles as plain C++ for the CPU emulation of the kernels. There each
// access goes through `check_access` of the emulator.
#pragma once

#ifndef KD_BODY
#define KD_BODY device
#endif

#include "../half.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include "emulation.h"
#endif

namespace kd {
namespace KD_BODY {

template <class T>
KD_INLINE T read(const T* address) {
#ifndef __CUDACC__
  check_access(address, sizeof(T), alignof(T));
#endif
  return *address;
}

template <class T>
KD_INLINE void write(T* address, T value) {
#ifndef __CUDACC__
  check_access(address, sizeof(T), alignof(T));
#endif
  *address = value;
}

// Reads from and writes to global memory. A pointer whose origin the compiler does not see may also
// point to shared memory, and such accesses are slower.
template <class T>
KD_INLINE T read_global(const T* address) {
#ifdef __CUDA_ARCH__
  T value;
  if constexpr (sizeof(T) == 16)
    reinterpret_cast<uint4&>(value) = __ldg(reinterpret_cast<const uint4*>(address));
  else if constexpr (sizeof(T) == 4)
    reinterpret_cast<uint32_t&>(value) = __ldg(reinterpret_cast<const uint32_t*>(address));
  else
    reinterpret_cast<uint16_t&>(value) = __ldg(reinterpret_cast<const uint16_t*>(address));
  return value;
#else
  return read(address);
#endif
}

template <class T>
KD_INLINE void write_global(T* address, T value) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 16) {
    const uint4 words = reinterpret_cast<const uint4&>(value);
    const size_t place = __cvta_generic_to_global(address);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(place), "r"(words.x),
                 "r"(words.y), "r"(words.z), "r"(words.w)
                 : "memory");
    return;
  }
#endif
  write(address, value);
}

// float16 uses the hardware's conversions. bfloat16 is the upper half of a float.
KD_INLINE float widen(float x) { return x; }
KD_INLINE double widen(double x) { return x; }
KD_INLINE float widen(BFloat16 x) { return to_float(x); }
KD_INLINE float widen(Float16 x) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(x.bits));
#else
  return to_float(x);
#endif
}

KD_INLINE void narrow(float& out, float x) { out = x; }
KD_INLINE void narrow(float& out, double x) { out = float(x); }
KD_INLINE void narrow(double& out, double x) { out = x; }
KD_INLINE void narrow(BFloat16& out, float x) {
#ifdef __CUDA_ARCH__
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  from_float(out, x);
#endif
}
KD_INLINE void narrow(Float16& out, float x) {
#ifdef __CUDA_ARCH__
  out.bits = __half_as_ushort(__float2half_rn(x));
#else
  from_float(out, x);
#endif
}

KD_INLINE void set_minus_infinity(float& x) { x = -INFINITY; }
KD_INLINE void set_minus_infinity(double& x) { x = -INFINITY; }
KD_INLINE void set_minus_infinity(BFloat16& x) { x.bits = 0xff80; }
KD_INLINE void set_minus_infinity(Float16& x) { x.bits = 0xfc00; }

// 16 bytes of logits in registers. Two 16-bit numbers share a word and are separated at each use.
// With a register each, a block could hold only half as many.
template <class T>
struct alignas(16) Chunk {
  static constexpr int size = 16 / sizeof(T);
  T numbers[size];

  KD_INLINE T get(int i) const { return numbers[i]; }
  KD_INLINE T raw(int i) const { return numbers[i]; }
  KD_INLINE void set(int i, T x) { numbers[i] = x; }
  // Rounds once.
  KD_INLINE void fill(const T (&values)[size]) {
    KD_UNROLL
    for (int i = 0; i < size; ++i) numbers[i] = values[i];
  }
};

// Two numbers, rounded to nearest, the first in the lower half of the word.
KD_INLINE uint32_t pack(BFloat16, float low, float high) {
#ifdef __CUDA_ARCH__
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return uint32_t(__bfloat16_as_ushort(pair.y)) << 16 | __bfloat16_as_ushort(pair.x);
#else
  BFloat16 numbers[2];
  from_float(numbers[0], low);
  from_float(numbers[1], high);
  return uint32_t(numbers[1].bits) << 16 | numbers[0].bits;
#endif
}
KD_INLINE uint32_t pack(Float16, float low, float high) {
#ifdef __CUDA_ARCH__
  const __half2 pair = __floats2half2_rn(low, high);
  return uint32_t(__half_as_ushort(pair.y)) << 16 | __half_as_ushort(pair.x);
#else
  Float16 numbers[2];
  from_float(numbers[0], low);
  from_float(numbers[1], high);
  return uint32_t(numbers[1].bits) << 16 | numbers[0].bits;
#endif
}

template <class T>
struct HalfChunk {
  static constexpr int size = 8;
  uint32_t words[4];

  KD_INLINE float get(int i) const { return widen(raw(i)); }
  KD_INLINE T raw(int i) const {
    return {uint16_t(i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xffff)};
  }
  KD_INLINE void set(int i, T x) {
    const uint32_t word = words[i / 2];
    words[i / 2] = i % 2 ? (word & 0xffff) | uint32_t(x.bits) << 16 : (word & ~0xffffu) | x.bits;
  }
  KD_INLINE void fill(const float (&values)[size]) {
    KD_UNROLL
    for (int i = 0; i < 4; ++i) words[i] = pack(T{}, values[2 * i], values[2 * i + 1]);
  }
};
template <>
struct alignas(16) Chunk<Float16> : HalfChunk<Float16> {};
template <>
struct alignas(16) Chunk<BFloat16> : HalfChunk<BFloat16> {
  KD_INLINE float get(int i) const {
    return from_bits(i % 2 ? words[i / 2] & 0xffff0000 : words[i / 2] << 16);
  }
};

KD_INLINE float larger(float a, float b) { return fmaxf(a, b); }
KD_INLINE double larger(double a, double b) { return fmax(a, b); }

#ifndef __CUDA_ARCH__
template <class T>
KD_INLINE uint32_t larger_pair_of(uint32_t a, uint32_t b) {
  const auto larger_of = [](uint32_t x, uint32_t y) {
    const float left = to_float(T{uint16_t(x)}), right = to_float(T{uint16_t(y)});
    return larger(left, right) == left ? x : y;
  };
  return larger_of(a >> 16, b >> 16) << 16 | larger_of(a & 0xffff, b & 0xffff);
}
#endif

// Each of two pairs' larger number. NaN is the smaller one.
KD_INLINE uint32_t larger_pair(BFloat16, uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  const __nv_bfloat162 larger = __hmax2(reinterpret_cast<const __nv_bfloat162&>(a),
                                        reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(larger);
#else
  return larger_pair_of<BFloat16>(a, b);
#endif
}
KD_INLINE uint32_t larger_pair(Float16, uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  const __half2 larger =
      __hmax2(reinterpret_cast<const __half2&>(a), reinterpret_cast<const __half2&>(b));
  return reinterpret_cast<const uint32_t&>(larger);
#else
  return larger_pair_of<Float16>(a, b);
#endif
}

// The largest number of the chunks so far, or -inf. 16-bit numbers are compared in pairs, without
// separating them.
template <class Held>
struct Largest {
  using Scalar = decltype(Held{}.get(0));
  Scalar value = -INFINITY;

  template <int width>
  KD_INLINE void add(const Held& held) {
    KD_UNROLL
    for (int i = 0; i < width; ++i) value = larger(value, held.get(i));
  }
  KD_INLINE Scalar get() const { return value; }
};
template <class T>
struct LargestOfPairs {
  Chunk<T> pairs;  // two numbers in its first word

  KD_INLINE LargestOfPairs() {
    T lowest;
    set_minus_infinity(lowest);
    pairs.words[0] = uint32_t(lowest.bits) << 16 | lowest.bits;
  }
  template <int width>
  KD_INLINE void add(const Chunk<T>& held) {
    KD_UNROLL
    for (int i = 0; i < width / 2; ++i)
      pairs.words[0] = larger_pair(T{}, pairs.words[0], held.words[i]);
  }
  KD_INLINE float get() const { return ::fmaxf(pairs.get(0), pairs.get(1)); }
};
template <>
struct Largest<Chunk<BFloat16>> : LargestOfPairs<BFloat16> {};
template <>
struct Largest<Chunk<Float16>> : LargestOfPairs<Float16> {};

// How many numbers a row's first address is past a multiple of 16 bytes. Chunk c of the row holds
// classes from c * size - shift, so that all chunks are aligned.
template <class T>
KD_INLINE int alignment_shift(const T* row) {
  return int(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
}

// Whether the row has all classes of a chunk. The chunks of a row that is not ragged are whole, and
// the first class of none is negative.
template <bool ragged, class T, class Index>
KD_INLINE bool is_whole(T, Index first, Index classes) {
  if (!ragged) return first < classes;
  return first >= 0 && first + Chunk<T>::size <= classes;
}

// Classes first to first + size - 1 of a row of `classes`, and -inf outside, whose exponential is
// 0. A row that is not `ragged` begins and ends with a whole chunk. `Index` is int if rows are
// known to be short. The row is in global memory, unless it is a tile.
template <bool ragged, bool tile, class T, class Index>
KD_INLINE Chunk<T> read_chunk(const T* row, Index first, Index classes) {
  const auto load = [](const auto* address) { return tile ? read(address) : read_global(address); };
  Chunk<T> chunk;
  if (is_whole<ragged>(T{}, first, classes))
    return load(reinterpret_cast<const Chunk<T>*>(row + first));
  KD_UNROLL
  for (int i = 0; i < Chunk<T>::size; ++i) {
    T number;
    set_minus_infinity(number);
    if (ragged && first + i >= 0 && first + i < classes) number = load(row + first + i);
    chunk.set(i, number);
  }
  return chunk;
}

// Begins to copy a chunk of a row into shared memory. The row's first chunk begins before the row,
// and is not copied if that is before the tensor. Of its last chunk the part inside is copied.
template <bool ragged, class Team, class T>
KD_INLINE void stage_chunk(const Team& team, const T* row, const T* begin, int first, int classes,
                           Chunk<T>* to) {
  if (first >= classes || (ragged && row + first < begin)) return;
  const int left = classes - first;
  const int count = ragged && left < Chunk<T>::size ? left : Chunk<T>::size;
  team.copy(to, row + first, count * int(sizeof(T)));
}

// The chunk that was copied, with -inf outside of the row.
template <bool ragged, class T>
KD_INLINE Chunk<T> staged_chunk(const T* row, const T* begin, int first, int classes,
                                const Chunk<T>* from) {
  if (is_whole<ragged>(T{}, first, classes)) return read(from);
  if (!ragged || first >= classes || row + first < begin)
    return read_chunk<ragged, false>(row, first, classes);
  Chunk<T> chunk = read(from);
  KD_UNROLL
  for (int i = 0; i < Chunk<T>::size; ++i) {
    T outside;
    set_minus_infinity(outside);
    if (first + i < 0 || first + i >= classes) chunk.set(i, outside);
  }
  return chunk;
}

template <bool ragged, bool tile, class T, class Index>
KD_INLINE void write_chunk(T* row, Index first, Index classes, const Chunk<T>& chunk) {
  if (is_whole<ragged>(T{}, first, classes)) {
    Chunk<T>* const to = reinterpret_cast<Chunk<T>*>(row + first);
    tile ? write(to, chunk) : write_global(to, chunk);
    return;
  }
  KD_UNROLL
  for (int i = 0; i < Chunk<T>::size; ++i)
    if (ragged && first + i >= 0 && first + i < classes) write(row + first + i, chunk.raw(i));
}

// A logit of any type.
template <class Scalar>
KD_INLINE Scalar read_any(const void* data, Type type, int64_t index) {
  switch (type) {
    case Type::float32: return Scalar(read(static_cast<const float*>(data) + index));
    case Type::bfloat16: return Scalar(widen(read(static_cast<const BFloat16*>(data) + index)));
    case Type::float16: return Scalar(widen(read(static_cast<const Float16*>(data) + index)));
    case Type::float64: return Scalar(read(static_cast<const double*>(data) + index));
  }
  return 0;
}

template <class Scalar>
KD_INLINE void write_any(void* data, Type type, int64_t index, Scalar value) {
  const auto store = [&](auto* to) {
    std::remove_pointer_t<decltype(to)> number;
    narrow(number, value);
    write(to + index, number);
  };
  switch (type) {
    case Type::float32: return store(static_cast<float*>(data));
    case Type::bfloat16: return store(static_cast<BFloat16*>(data));
    case Type::float16: return store(static_cast<Float16*>(data));
    case Type::float64: return store(static_cast<double*>(data));
  }
}

}  // namespace KD_BODY
}  // namespace kd
