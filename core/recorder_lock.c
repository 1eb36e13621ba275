/* SPDX-License-Identifier: MIT */
/* One writer a database: an flock on the file PATH-lock beside it, held by an open file
 * description, so that the kernel gives it back however the process ends. Whoever holds it
 * knows that a run still marked `running` belongs to nobody.
 *
 * Not on the database itself: SQLite's locks there are POSIX ones, which closing any other
 * descriptor of the file would drop. The holder removes the file when it is done, and a
 * newcomer checks, once it has the lock, that it locked the file that is still there. */
#include "recorder_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int recorder_lock(struct recorder *recorder, const char *real_path, struct lathe_error *err)
{
    recorder->lock_fd = -1;
    if (asprintf(&recorder->lock_path, "%s-lock", real_path) < 0) {
        recorder->lock_path = NULL;
        return lathe_fail(err, LATHE_ENOMEM, "%s: out of memory", recorder->path);
    }
    for (int attempt = 0; attempt < 100; attempt++) {
        struct stat held, there;
        char text[128];
        int fd = open(recorder->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0)
            return lathe_fail(err, LATHE_EIO, "%s: can't write beside it (%s): %s; check the folder or name another",
                              recorder->path, recorder->lock_path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int refused = errno;
            ssize_t n = read(fd, text, sizeof text - 1);
            text[n > 0 ? n : 0] = 0;
            text[strcspn(text, "\n")] = 0;
            close(fd);
            if (refused == EWOULDBLOCK)
                return lathe_fail(err, LATHE_EBUSY, "%s: %s is recording into it; wait for that to end, or name another file",
                                  recorder->path, text[0] ? text : "another process");
            return lathe_fail(err, LATHE_EIO, "%s: can't lock %s: %s", recorder->path, recorder->lock_path,
                              strerror(refused));
        }
        if (fstat(fd, &held) == 0 && stat(recorder->lock_path, &there) == 0 && held.st_ino == there.st_ino &&
            held.st_dev == there.st_dev) {
            char host[64] = "";
            gethostname(host, sizeof host - 1);
            int n = snprintf(text, sizeof text, "process %ld on %s\n", (long)getpid(), host);
            if (ftruncate(fd, 0) != 0 || write(fd, text, (size_t)n) != n) {
                close(fd);
                return lathe_fail(err, LATHE_EIO, "%s: can't write %s; is the disk full?", recorder->path,
                                  recorder->lock_path);
            }
            recorder->lock_fd = fd;
            return LATHE_OK;
        }
        close(fd); /* its holder removed it between our open and our lock */
    }
    return lathe_fail(err, LATHE_EBUSY, "%s: %s keeps changing hands; try again", recorder->path, recorder->lock_path);
}

void recorder_unlock(struct recorder *recorder)
{
    if (recorder->lock_fd >= 0) {
        unlink(recorder->lock_path);
        close(recorder->lock_fd);
    }
    recorder->lock_fd = -1;
}
