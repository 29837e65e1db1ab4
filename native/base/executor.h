// Executor: runs jobs somewhere else, one after the other. In a process that is a thread, for calls
// that block; under a simulator a job runs when the seed says so.
//
// Thread safety: submit() from any thread; the destructor not from inside a job.
#pragma once

#include <memory>
#include <string>

#include "base/function.h"

namespace fs3 {

class Executor {
 public:
  // Waits for the job that runs and drops those that have not begun.
  virtual ~Executor() = default;
  // Jobs begin in the order of submission, each after the one before has ended.
  virtual void submit(Function<void()> job) = 0;
};

// A thread of its own. Linux keeps 15 characters of the name.
std::unique_ptr<Executor> start_executor(std::string name);

}  // namespace fs3
