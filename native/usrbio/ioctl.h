// 3FS's ioctls on files and directories of a mount: numbers and arguments as its tools have them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fs3::usrbio {

constexpr uint32_t kMagic = 0x8f3f5fff;  // HF3FS_SUPER_MAGIC
constexpr uint32_t kIoctlVersion = 1;
constexpr int kHolesMax = 1000;
constexpr size_t kMountNameBytes = 32;

constexpr unsigned long kIoctlMountName = 0x80206800;   // out: char[32]
constexpr unsigned long kIoctlPathOffset = 0x80046801;  // out: length of the mount's path
constexpr unsigned long kIoctlMagic = 0x80046802;       // out
constexpr unsigned long kIoctlGetVersion = 0x80046803;  // out
constexpr unsigned long kIoctlFsync = 0x8004680b;       // settles the length
constexpr unsigned long kIoctlHardLink = 0x4108680c;    // this file as parent/name
constexpr unsigned long kIoctlPunchHole = 0x7e90680d;
constexpr unsigned long kIoctlMove = 0x4218680e;    // on the directory that it is moved out of
constexpr unsigned long kIoctlRemove = 0x4110680f;  // on the directory that it is removed from

struct HardLink {
  uint64_t parent;
  char name[255];
  char end;
};
static_assert(sizeof(HardLink) == 264);

struct PunchHoles {
  int32_t count;
  int32_t padding;
  uint64_t flags;
  uint64_t start[kHolesMax];
  uint64_t end[kHolesMax];
};
static_assert(sizeof(PunchHoles) == 16'016);

struct Move {
  uint64_t from_parent;
  char from_name[256];
  uint64_t to_parent;
  char to_name[256];
  bool to_trash;  // of no effect: the trash is a directory like others
};
static_assert(sizeof(Move) == 536);

struct Remove {
  uint64_t parent;
  char name[256];
  bool recursive;
};
static_assert(sizeof(Remove) == 272);

}  // namespace fs3::usrbio
