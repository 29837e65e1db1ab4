// Disk: everything the engine asks of storage, small enough that a simulated disk can stand in.
//
// A disk is one directory with named files. Data calls are asynchronous: they return at once and
// call back on the reactor's thread, never from inside the call.
//
// Durability contract:
//  1. A write that called back with ok is visible to later reads, and survives the death of the
//     process, but not power loss.
//  2. When datasync() says ok, every write, allocate and punch of that file that had called back
//     with ok before datasync() was called survives power loss, with the file length that goes with
//     them.
//  3. A created file survives power loss only after sync_directory() said ok.
//  4. Without a sync any subset of the written 512-byte sectors may be there after power loss, in
//     any order; a sector holds either its old or its new bytes.
//  5. After an error of datasync() nothing is known of the unsynced writes; the same call again may
//     lie. Callers treat it as the end of the disk.
//
// Thread safety: all calls on the reactor's thread (or before it runs), except File::datasync_now,
// which any thread may call.
// Ownership: a File must not outlive its Disk. Buffers are held until the call back. The destructor
// of a Disk waits for the device to finish with memory it was given, and drops callbacks not yet
// made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/function.h"
#include "base/status.h"

namespace fs3::disk {

// Offsets, lengths and addresses of data calls are multiples of this.
constexpr uint64_t kAlignment = 4096;
// What a device writes or keeps as a whole.
constexpr uint64_t kSector = 512;

struct DiskStatistics {
  std::string method;   // how data travels: "io_uring", "threads", "simulated"
  bool direct = false;  // past the page cache
  uint64_t reads = 0, read_bytes = 0, writes = 0, written_bytes = 0, syncs = 0, errors = 0;
};

struct DiskSpace {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  // to this process
};

class File {
 public:
  virtual ~File() = default;

  // Fills buffer.data() .. +buffer.size(). Success: the number of bytes, fewer than asked only at
  // the end of the file. Holes read as zeros.
  // REQUIRES: offset, buffer.size() and buffer.data() are multiples of kAlignment.
  virtual void read(uint64_t offset, Buffer buffer, Function<void(Result<size_t>)> done) = 0;

  // Writes all of the buffer or fails; after a failure any part of the range may have changed.
  // REQUIRES: as read.
  virtual void write(uint64_t offset, Buffer buffer, Function<void(Status)> done) = 0;

  virtual void datasync(Function<void(Status)> done) = 0;
  // The same, blocking; from any thread.
  virtual Status datasync_now() = 0;

  // Reserves space for the range and makes the file at least that long; new bytes read as zeros.
  // ENOSPC leaves the file as it was.
  virtual void allocate(uint64_t offset, uint64_t length, Function<void(Status)> done) = 0;

  // Gives the space of the range back; it reads as zeros. The length of the file stays.
  virtual void punch(uint64_t offset, uint64_t length, Function<void(Status)> done) = 0;

  // Current length, bytes.
  virtual Result<uint64_t> size() const = 0;
};

class Disk {
 public:
  virtual ~Disk() = default;

  // Opens the file `name` ("blocks/20") for reading and writing; makes it when it is not there.
  virtual Result<std::unique_ptr<File>> open(const std::string& name) = 0;

  // Makes creations and removals in the directory `name` ("" = the root) durable. Blocks.
  virtual Status sync_directory(const std::string& name) = 0;
  // Makes a subdirectory, if it is not there yet, durable. Blocks.
  virtual Status make_directory(const std::string& name) = 0;

  // Small files for start-up; both block. write_small replaces the file as a whole: after a crash
  // it holds the old or the new bytes, and the new ones once it returned ok. read_small refuses
  // files longer than `limit` bytes with EFBIG; a missing file is ENOENT.
  virtual Result<std::string> read_small(const std::string& name, size_t limit) = 0;
  virtual Status write_small(const std::string& name, const std::string& bytes) = 0;

  virtual Result<DiskSpace> space() const = 0;
  virtual DiskStatistics statistics() const = 0;
};

}  // namespace fs3::disk
