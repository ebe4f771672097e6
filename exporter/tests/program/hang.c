/*
 * A name service (NSS) for tests: as long as HANG_FILE exists it does not answer; else nssUID is
 * the name of each uid of 41000-59999, and the other way round.
 */
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char nothing[] = "";

static enum nss_status answer(unsigned uid, struct passwd *result, char *buffer, size_t length,
                              int *error)
{
    while (access(HANG_FILE, F_OK) == 0)
        usleep(10000);
    if (uid < 41000 || uid > 59999)
        return NSS_STATUS_NOTFOUND;
    if (snprintf(buffer, length, "nss%u", uid) >= (int)length) {
        *error = ERANGE;
        return NSS_STATUS_TRYAGAIN;
    }
    memset(result, 0, sizeof *result);
    result->pw_name = buffer;
    result->pw_uid = uid;
    result->pw_gid = uid;
    result->pw_passwd = result->pw_gecos = result->pw_dir = result->pw_shell = nothing;
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_hang_getpwuid_r(uid_t uid, struct passwd *result, char *buffer, size_t length,
                                     int *error)
{
    return answer(uid, result, buffer, length, error);
}

enum nss_status _nss_hang_getpwnam_r(const char *name, struct passwd *result, char *buffer,
                                     size_t length, int *error)
{
    unsigned uid = 0;
    sscanf(name, "nss%u", &uid);
    return answer(uid, result, buffer, length, error);
}
