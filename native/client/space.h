// fallocate(2): space that a file should have, holes, zeros.
//
// What a hole costs: whole chunks are removed from their chains and give their space back, the rest
// of the range is overwritten with zeros. Order: everything that was written here before is on its
// chains first; a chunk is claimed (dirty.h) while it is removed, so a write made meanwhile reaches
// the chain after the removal and survives; then the metadata service hears of it, so that other
// mounts drop what they cached before fallocate returns.
//
// Space is not reserved. Blocks are written copy-on-write, so not even overwriting is promised to
// find room, and a reservation would have to be kept by every replica of every chain. So what is
// promised is less: a request that cannot be met at this moment is refused with ENOSPC.
#pragma once

#include <cstdint>
#include <memory>

#include "base/function.h"
#include "base/status.h"
#include "client/client.h"

namespace fs3::client {

class Core;
struct OpenFile;

// As Client::fallocate.
void fallocate_file(const std::shared_ptr<Core>& core, const FileHandle& handle, uint32_t mode,
                    uint64_t offset, uint64_t length, Function<void(Status)> done);

// Makes [offset, offset + length) read as zeros; the size stays. The service is not told yet: the
// file counts as changed here.
void punch_file(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                uint64_t offset, uint64_t length, Function<void(Status)> done);

// The file is at least `offset + length` bytes long afterwards, for everybody (unless `keep_size`);
// ENOSPC when the cluster has no room for what the range does not hold yet.
void allocate_file(const std::shared_ptr<Core>& core, const FileHandle& handle, uint64_t offset,
                   uint64_t length, bool keep_size, Function<void(Status)> done);

}  // namespace fs3::client
