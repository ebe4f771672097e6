/*
 * A name service (NSS) for tests that knows of groups alone: MEMBER is in the group HALF_GID, which
 * has no name here, and in the group "far", which has the gid FAR_GID. As long as the file
 * HALF_DIR "/away" exists it fails with ENOENT, as a directory's module does whose daemon is gone;
 * as long as HALF_DIR "/refused" exists, with ECONNREFUSED.
 */
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char nothing[] = "";
static char far[] = "far";
static char *nobody[] = {NULL};

static enum nss_status fail(int *error)
{
    /* `error` is errno itself, which access() sets. */
    int why = 0;
    if (access(HALF_DIR "/away", F_OK) == 0)
        why = ENOENT;
    else if (access(HALF_DIR "/refused", F_OK) == 0)
        why = ECONNREFUSED;
    *error = why;
    return why ? NSS_STATUS_UNAVAIL : NSS_STATUS_SUCCESS;
}

enum nss_status _nss_half_initgroups_dyn(const char *user, gid_t group, long *start, long *size,
                                         gid_t **groups, long limit, int *error)
{
    (void)group;
    (void)limit;
    if (fail(error) != NSS_STATUS_SUCCESS)
        return NSS_STATUS_UNAVAIL;
    if (strcmp(user, MEMBER) != 0)
        return NSS_STATUS_NOTFOUND;
    if (*start + 2 > *size) {
        gid_t *more = realloc(*groups, (*size + 2) * sizeof **groups);
        if (!more) {
            *error = ENOMEM;
            return NSS_STATUS_TRYAGAIN;
        }
        *groups = more;
        *size += 2;
    }
    (*groups)[(*start)++] = HALF_GID;
    (*groups)[(*start)++] = FAR_GID;
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_half_getgrnam_r(const char *name, struct group *result, char *buffer,
                                     size_t length, int *error)
{
    (void)buffer;
    (void)length;
    if (fail(error) != NSS_STATUS_SUCCESS)
        return NSS_STATUS_UNAVAIL;
    if (strcmp(name, far) != 0)
        return NSS_STATUS_NOTFOUND;
    result->gr_name = far;
    result->gr_passwd = nothing;
    result->gr_gid = FAR_GID;
    result->gr_mem = nobody;
    return NSS_STATUS_SUCCESS;
}
