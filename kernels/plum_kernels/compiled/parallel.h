// Threads that work in step: all of them finish a phase before any begins the next.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

class Team {
  public:
    const long size;
    explicit Team(long threads) : size(threads) {}

    // work(member) on each thread, the caller's among them
    template <typename Work>
    void run(Work work) {
        std::vector<std::thread> others;
        for (long t = 1; t < size; t++) others.emplace_back(work, t);
        work(0L);
        for (auto &thread : others) thread.join();
    }

    void wait() {
        if (size == 1) return;
        std::unique_lock<std::mutex> hold(lock);
        const long mine = phase;
        if (++arrived == size) {
            arrived = 0;
            phase++;
            all_there.notify_all();
        } else {
            all_there.wait(hold, [&] { return phase != mine; });
        }
    }

  private:
    std::mutex lock;
    std::condition_variable all_there;
    long arrived = 0, phase = 0;
};
