/* Preloaded into a daemon: while the file $FAULTY_DISK_SWITCH exists, nothing below $FAULTY_DISK becomes durable; while
   $FAULTY_DISK_SWITCH.hangs does, whoever wants that waits, or to read a directory there. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_on(int fd, const char *suffix)
{
    const char *below = getenv("FAULTY_DISK"), *on = getenv("FAULTY_DISK_SWITCH");
    char link[64], path[PATH_MAX];
    if (below == NULL || on == NULL)
        return 0;
    snprintf(path, sizeof path, "%s%s", on, suffix);
    if (access(path, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strncmp(path, below, strlen(below)) == 0;
}

static int synced(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    while (is_on(fd, ".hangs"))
        usleep(10000);
    if (!is_on(fd, ""))
        return real(fd);
    errno = EIO;
    return -1;
}

DIR *fdopendir(int fd)
{
    DIR *(*real)(int) = (DIR *(*)(int))dlsym(RTLD_NEXT, "fdopendir");
    while (is_on(fd, ".hangs"))
        usleep(10000);
    return real(fd);
}

int fsync(int fd)
{
    return synced("fsync", fd);
}

int fdatasync(int fd)
{
    return synced("fdatasync", fd);
}
